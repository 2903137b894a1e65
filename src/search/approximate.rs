//! Searches that score candidates only: stage by stage, or on one device in one go.

use super::candidates::Candidates;
use super::certificate::certify;
use super::course::Course;
use super::first_stage::FirstStage;
use super::{Algorithm, Found, Hit, all_found, best, named};
use crate::Result;
use crate::backend::{PreparedQueries, Retrieval, Retrieved};
use crate::context::Stage;
use crate::index::{Excluded, Snapshot};

/// What the first stage leaves to be done.
enum First {
    /// All of this, on the device.
    Retrieval(Retrieval),
    /// To score these.
    Candidates(Candidates),
}

/// What remains to be selected from.
enum Scored {
    Retrieved(Vec<Retrieved>),
    Candidates(Candidates, Vec<Vec<f32>>),
}

/// The `k` best candidates of each query that `algorithm` collects in `snapshot`; certificates if asked for.
///
/// # Errors
/// If the algorithm needs what the index does not have, the device fails, or the search was cancelled.
pub(super) fn approximate(
    course: &mut Course,
    snapshot: &Snapshot,
    queries: &PreparedQueries,
    (algorithm, k, certified): (Algorithm, usize, bool),
    excluded: &Excluded,
) -> Result<Found> {
    let context = course.context;
    let stage = course.stage(Stage::QuerySide, || FirstStage::new(context, snapshot, queries, excluded))?;
    let first = course.stage(Stage::FirstStage, || {
        let retrieval = stage.retrieval(algorithm, 1)?;
        match snapshot.retrieves(&retrieval) {
            true => Ok(First::Retrieval(retrieval)),
            false => Ok(First::Candidates(stage.collect(algorithm, &retrieval, k)?)),
        }
    })?;
    let mut candidates = Vec::new();
    let mut retrieved = None;
    match first {
        First::Candidates(collected) => candidates = collected,
        First::Retrieval(retrieval) => {
            retrieved = course.stage(Stage::Scoring, || stage.retrieve(algorithm, &retrieval, k, certified))?;
            if retrieved.is_none() {
                candidates = course.stage(Stage::FirstStage, || stage.collect(algorithm, &retrieval, k))?;
            }
        }
    }
    let scored = match retrieved {
        Some(retrieved) => Scored::Retrieved(retrieved),
        None => {
            let scores =
                course.stage(Stage::Scoring, || snapshot.rescore(context, snapshot.scorer(), queries, &candidates))?;
            Scored::Candidates(candidates, scores)
        }
    };
    let (candidates_found, pairs) = scored.counts();
    course.stats.candidates += candidates_found;
    course.stats.pairs += pairs;
    let (hits, candidates) = course.stage(Stage::Selection, || Ok(selected(snapshot, scored, k)))?;
    all_found(snapshot, excluded, k, &hits)?;
    let certificates = match certified {
        true => {
            course.stage(Stage::Certifying, || certify(context, snapshot, queries, k, &hits, &candidates, excluded))?
        }
        false => Vec::new(),
    };
    Ok((hits, certificates))
}

impl Scored {
    /// Candidates, and pairs that were scored.
    fn counts(&self) -> (u64, u64) {
        match self {
            Scored::Retrieved(retrieved) => {
                let sum = |n: fn(&Retrieved) -> usize| retrieved.iter().map(|retrieved| n(retrieved) as u64).sum();
                (sum(|retrieved| retrieved.n_candidates), sum(|retrieved| retrieved.n_scored))
            }
            Scored::Candidates(candidates, _) => {
                let n = candidates.iter().map(|list| list.len() as u64).sum();
                (n, n)
            }
        }
    }
}

/// The best `k` of each query by name, and the candidates.
fn selected(snapshot: &Snapshot, scored: Scored, k: usize) -> (Vec<Vec<Hit>>, Candidates) {
    match scored {
        Scored::Retrieved(retrieved) => {
            retrieved.into_iter().map(|found| (named(snapshot, found.hits), found.candidates)).unzip()
        }
        Scored::Candidates(candidates, scores) => {
            let pairs = candidates.iter().zip(scores);
            let hits = pairs.map(|(list, scores)| named(snapshot, best(snapshot, list, scores, k))).collect();
            (hits, candidates)
        }
    }
}
