//! Retrieval quality with any number of relevant documents per query, and grades of relevance, as trec_eval defines it.

use std::collections::HashMap;

use crate::dataset::{Qrels, TrecRun};
use crate::error::Parameter;
use crate::metrics::Metric;
use crate::{Error, Result};

/// How good the results of a run are for each judged query that it has.
///
/// ```
/// use rails_wgpu::dataset::{Qrels, TrecRun};
/// use rails_wgpu::eval::GradedQuality;
/// use rails_wgpu::metrics::Metric;
///
/// # fn main() -> rails_wgpu::Result<()> {
/// let (mut qrels, mut run) = (Qrels::new(), TrecRun::new());
/// qrels.add("q1", "best", 2)?;
/// qrels.add("q1", "good", 1)?;
/// run.add("q1", "good", 0.9)?;
/// run.add("q1", "other", 0.8)?;
/// let quality = GradedQuality::new(&qrels, &run, 1)?;
/// assert_eq!(quality.mean(Metric::Recall(10), false), 0.5);
/// assert_eq!(quality.mean(Metric::Mrr, false), 1.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GradedQuality {
    queries: Vec<(String, JudgedRanking)>,
    missing: usize,
    unjudged: usize,
}

impl GradedQuality {
    /// Judges `run` by `qrels`. A grade of at least `relevance_level` is relevant, except in NDCG, whose gains are the grades
    /// themselves. What was not judged, or has a negative grade, is not relevant.
    ///
    /// # Errors
    /// If the level is less than 1, or no judged query has results.
    pub fn new(qrels: &Qrels, run: &TrecRun, relevance_level: i32) -> Result<GradedQuality> {
        if relevance_level < 1 {
            return Err(Error::argument(Parameter::RelevanceLevel, "1 or more", relevance_level));
        }
        let mut judged = GradedQuality { queries: Vec::new(), missing: 0, unjudged: 0 };
        for query in run.queries() {
            match qrels.grades(query) {
                Some(grades) => {
                    let ranking = JudgedRanking::new(grades.collect(), run.ranking(query), relevance_level);
                    judged.queries.push((query.to_string(), ranking));
                }
                None => judged.unjudged += 1,
            }
        }
        judged.missing = qrels.queries().count() - judged.queries.len();
        match judged.queries.is_empty() {
            false => Ok(judged),
            true => {
                let found = format!("none of the {} in the run among the {} judged", judged.unjudged, judged.missing);
                Err(Error::argument(Parameter::TrecRun, "queries that were judged", found))
            }
        }
    }

    /// The judged queries that have results, in alphabetical order.
    pub fn queries(&self) -> impl Iterator<Item = (&str, &JudgedRanking)> {
        self.queries.iter().map(|(query, ranking)| (query.as_str(), ranking))
    }

    /// How many judged queries the run lacks.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// How many queries of the run were not judged; they count nowhere.
    pub fn unjudged(&self) -> usize {
        self.unjudged
    }

    /// The mean over queries. Judged queries that the run lacks are left out, as trec_eval does, or count 0 with `all_judged`,
    /// as with its option `-c`.
    pub fn mean(&self, metric: Metric, all_judged: bool) -> f64 {
        let sum: f64 = self.queries.iter().map(|(_, ranking)| ranking.value(metric)).sum();
        sum / (self.queries.len() + if all_judged { self.missing } else { 0 }) as f64
    }
}

/// What the judgments say of the results of one query.
#[derive(Clone, Debug)]
pub struct JudgedRanking {
    /// Rank, from 1, and grade of each result with a grade above 0.
    graded: Vec<(usize, i32)>,
    /// All grades above 0, greatest first.
    ideal: Vec<i32>,
    n_relevant: usize,
    relevance_level: i32,
}

impl JudgedRanking {
    fn new(grades: HashMap<&str, i32>, ranking: Vec<(&str, f32)>, relevance_level: i32) -> JudgedRanking {
        let positive = |&grade: &i32| grade > 0;
        let ranks = ranking.iter().enumerate();
        let grade = |(index, (document, _)): (usize, &(&str, f32))| {
            Some((index + 1, grades.get(document).copied().filter(positive)?))
        };
        let graded = ranks.filter_map(grade).collect();
        let mut ideal: Vec<i32> = grades.values().copied().filter(positive).collect();
        ideal.sort_unstable_by(|a, b| b.cmp(a));
        let n_relevant = ideal.iter().filter(|&&grade| grade >= relevance_level).count();
        JudgedRanking { graded, ideal, n_relevant, relevance_level }
    }

    /// How many documents are relevant to the query.
    pub fn n_relevant(&self) -> usize {
        self.n_relevant
    }

    /// A number about these results; 0 if no document is relevant to the query.
    pub fn value(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Recall(n) => self.found(n) as f64 / self.n_relevant.max(1) as f64,
            Metric::Precision(n) => self.found(n) as f64 / n as f64,
            Metric::HitRate(n) => f64::from(u8::from(self.found(n) > 0)),
            Metric::Mrr => self.reciprocal_rank(usize::MAX),
            Metric::MrrAt(n) => self.reciprocal_rank(n),
            Metric::Ndcg(n) => {
                let ideal =
                    self.ideal.iter().take(n).enumerate().map(|(index, &grade)| gain(index + 1, grade)).sum::<f64>();
                let found =
                    self.graded.iter().take_while(|(rank, _)| *rank <= n).map(|&(rank, grade)| gain(rank, grade));
                if ideal > 0.0 { found.sum::<f64>() / ideal } else { 0.0 }
            }
        }
    }

    /// Ranks of relevant results.
    fn ranks(&self) -> impl Iterator<Item = usize> {
        let relevant = self.graded.iter().filter(|(_, grade)| *grade >= self.relevance_level);
        relevant.map(|(rank, _)| *rank)
    }

    /// Relevant documents among the first `n`.
    fn found(&self, n: usize) -> usize {
        self.ranks().take_while(|&rank| rank <= n).count()
    }

    fn reciprocal_rank(&self, n: usize) -> f64 {
        self.ranks().next().filter(|&rank| rank <= n).map_or(0.0, |rank| 1.0 / rank as f64)
    }
}

/// Discounted gain of a grade (Järvelin and Kekäläinen, 2002, with the grades themselves as gains).
fn gain(rank: usize, grade: i32) -> f64 {
    f64::from(grade) / (rank as f64 + 1.0).log2()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::path::Path;

    use super::*;

    fn quality(qrels: &str, run: &str, level: i32) -> Result<GradedQuality> {
        let qrels = Qrels::parse(&mut qrels.as_bytes(), Path::new("qrels")).unwrap();
        GradedQuality::new(&qrels, &TrecRun::parse(&mut run.as_bytes(), Path::new("run")).unwrap(), level)
    }

    /// Relevant are a (2), b (1) and f (3), which is not found; c has the grade 0, d was not judged, e has the grade -1.
    const QRELS: &str = "1 0 a 2\n1 0 b 1\n1 0 c 0\n1 0 e -1\n1 0 f 3\n2 0 a 0\n3 0 a 1\n";
    const RUN: &str =
        "1 Q0 d 1 9 x\n1 Q0 a 2 8 x\n1 Q0 e 3 7 x\n1 Q0 c 4 6 x\n1 Q0 b 5 5 x\n2 Q0 a 1 1 x\n4 Q0 a 1 1 x\n";

    #[test]
    fn hand_computed() {
        let quality = quality(QRELS, RUN, 1).unwrap();
        let (query, first) = quality.queries().next().unwrap();
        assert_eq!((query, first.n_relevant(), quality.queries().count()), ("1", 3, 2));
        let (two, three, five) = (2.0 / 3f64.log2(), 1.0 / 2f64, 1.0 / 6f64.log2());
        let ideal = 3.0 + 2.0 / 3f64.log2() + three;
        for (metric, value) in [
            ("recall@1", 0.0),
            ("recall@2", 1.0 / 3.0),
            ("recall@100", 2.0 / 3.0),
            ("precision@2", 0.5),
            ("precision@100", 0.02),
            ("hr@1", 0.0),
            ("hr@2", 1.0),
            ("mrr", 0.5),
            ("mrr@1", 0.0),
            ("ndcg@2", two / (3.0 + 2.0 / 3f64.log2())),
            ("ndcg@100", (two + five) / ideal),
        ] {
            let found = first.value(metric.parse().unwrap());
            assert!((found - value).abs() < 1e-15, "{metric}: {found} {value}");
            // Query 2 has no relevant document.
            assert!((quality.mean(metric.parse().unwrap(), false) - value / 2.0).abs() < 1e-15, "{metric}");
            assert!((quality.mean(metric.parse().unwrap(), true) - value / 3.0).abs() < 1e-15, "{metric}");
        }
        assert_eq!((quality.missing(), quality.unjudged()), (1, 1));
    }

    #[test]
    fn the_level_says_what_is_relevant_but_not_what_is_gained() {
        let (one, two) = (quality(QRELS, RUN, 1).unwrap(), quality(QRELS, RUN, 2).unwrap());
        assert_eq!(two.mean(Metric::Recall(9), false), 0.25);
        assert_eq!(two.mean(Metric::Ndcg(9), false), one.mean(Metric::Ndcg(9), false));
        assert!(
            quality(QRELS, RUN, 0).unwrap_err().to_string().contains("relevance level: expected 1 or more, found 0")
        );
    }

    #[test]
    fn a_run_of_other_queries_is_refused() {
        let error = quality(QRELS, "9 Q0 a 1 1 x\n", 1).unwrap_err().to_string();
        assert_eq!(error, "run: expected queries that were judged, found none of the 1 in the run among the 3 judged");
    }
}
