//! Retrieval quality from the rank of one target per query: hit rate, NDCG and MRR, as the reference defines them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Parameter;
use crate::{Error, Result};

/// Cut-offs of the hit rate that tables show.
pub const HIT_RATE_AT: [usize; 6] = [1, 5, 10, 50, 100, 200];

/// Cut-offs of NDCG that tables show.
pub const NDCG_AT: [usize; 3] = [10, 50, 200];

/// One number about the quality of results, for training to choose the best model by, too. Displayed and parsed as `hr@10`,
/// `ndcg@10`, `mrr`, `mrr@10`, `recall@10`, `precision@10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum Metric {
    /// HR@n.
    HitRate(usize),
    /// NDCG@n.
    Ndcg(usize),
    /// MRR.
    Mrr,
    /// MRR@n: relevant items beyond the first n count zero.
    MrrAt(usize),
    /// Recall@n: the share of the relevant items that is among the first n. With one relevant item it is HR@n.
    Recall(usize),
    /// Precision@n: relevant items among the first n, divided by n.
    Precision(usize),
}

impl Metric {
    /// Its value.
    pub fn of(self, quality: &Quality) -> f64 {
        match self {
            Metric::HitRate(n) => quality.hit_rate(n),
            Metric::Ndcg(n) => quality.ndcg(n),
            Metric::Mrr => quality.mrr(),
            Metric::MrrAt(n) => quality.mrr_at(n),
            Metric::Recall(n) => quality.hit_rate(n),
            Metric::Precision(n) => quality.hit_rate(n) / n as f64,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Metric::HitRate(n) => write!(f, "hr@{n}"),
            Metric::Ndcg(n) => write!(f, "ndcg@{n}"),
            Metric::Mrr => f.write_str("mrr"),
            Metric::MrrAt(n) => write!(f, "mrr@{n}"),
            Metric::Recall(n) => write!(f, "recall@{n}"),
            Metric::Precision(n) => write!(f, "precision@{n}"),
        }
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(name: &str) -> Result<Metric> {
        let at = |n: &str| n.parse().ok().filter(|&n| n > 0);
        let found = match name.split_once('@') {
            Some(("hr", n)) => at(n).map(Metric::HitRate),
            Some(("ndcg", n)) => at(n).map(Metric::Ndcg),
            Some(("mrr", n)) => at(n).map(Metric::MrrAt),
            Some(("recall", n)) => at(n).map(Metric::Recall),
            Some(("precision", n)) => at(n).map(Metric::Precision),
            None if name == "mrr" => Some(Metric::Mrr),
            _ => None,
        };
        let expected = "hr@N, ndcg@N, mrr, mrr@N, recall@N or precision@N";
        found.ok_or_else(|| Error::argument(Parameter::Metric, expected, format!("`{name}`")))
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> String {
        metric.to_string()
    }
}

impl TryFrom<String> for Metric {
    type Error = Error;

    fn try_from(name: String) -> Result<Metric> {
        name.parse()
    }
}

/// Sums over queries, from which the means are taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quality {
    ranks: Vec<Option<usize>>,
    miss_rank: Option<usize>,
}

impl Quality {
    /// `miss_rank` is the rank that a target which was not found counts with in the MRR; `None`: it counts zero.
    pub fn new(miss_rank: Option<usize>) -> Quality {
        Quality { ranks: Vec::new(), miss_rank }
    }

    /// Adds a query whose target was found at the 1-based `rank`, or not found.
    pub fn add(&mut self, rank: Option<usize>) {
        self.ranks.push(rank);
    }

    /// Number of queries.
    pub fn len(&self) -> usize {
        self.ranks.len()
    }

    /// Whether no query was added.
    pub fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    /// HR@n: the share of queries whose target is among the first n.
    pub fn hit_rate(&self, n: usize) -> f64 {
        self.mean(|rank| rank.filter(|&rank| rank <= n).map_or(0.0, |_| 1.0))
    }

    /// NDCG@n with one relevant item: the mean of 1 / log2(rank + 1) over targets among the first n.
    pub fn ndcg(&self, n: usize) -> f64 {
        self.mean(|rank| rank.filter(|&rank| rank <= n).map_or(0.0, |rank| 1.0 / (rank as f64 + 1.0).log2()))
    }

    /// MRR: the mean of 1 / rank.
    pub fn mrr(&self) -> f64 {
        self.mean(|rank| rank.or(self.miss_rank).map_or(0.0, |rank| 1.0 / rank as f64))
    }

    /// MRR@n: the mean of 1 / rank over targets among the first n; others count zero, whatever the rank of a miss.
    pub fn mrr_at(&self, n: usize) -> f64 {
        self.mean(|rank| rank.filter(|&rank| rank <= n).map_or(0.0, |rank| 1.0 / rank as f64))
    }

    fn mean(&self, value: impl Fn(Option<usize>) -> f64) -> f64 {
        if self.ranks.is_empty() {
            return 0.0;
        }
        self.ranks.iter().map(|&rank| value(rank)).sum::<f64>() / self.ranks.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quality(miss_rank: Option<usize>, ranks: &[Option<usize>]) -> Quality {
        let mut quality = Quality::new(miss_rank);
        ranks.iter().for_each(|&rank| quality.add(rank));
        quality
    }

    #[test]
    fn hand_computed() {
        // Ranks 1, 3, 10, 11 and a miss. log2(2) = 1, log2(4) = 2.
        let q = quality(Some(2501), &[Some(1), Some(3), Some(10), Some(11), None]);
        assert_eq!(q.len(), 5);
        assert_eq!(q.hit_rate(1), 0.2);
        assert_eq!(q.hit_rate(10), 0.6);
        assert_eq!(q.hit_rate(11), 0.8);
        let ndcg_10 = (1.0 + 0.5 + 1.0 / 11f64.log2()) / 5.0;
        assert!((q.ndcg(10) - ndcg_10).abs() < 1e-15);
        assert!((q.ndcg(11) - ndcg_10 - 1.0 / 12f64.log2() / 5.0).abs() < 1e-15);
        let mrr = (1.0 + 1.0 / 3.0 + 0.1 + 1.0 / 11.0) / 5.0;
        assert!((q.mrr() - mrr - 1.0 / 2501.0 / 5.0).abs() < 1e-15);
    }

    #[test]
    fn metrics_are_parsed_displayed_and_computed() {
        let q = quality(None, &[Some(2), Some(12), None, None]);
        for (name, value) in [
            ("hr@10", 0.25),
            ("hr@12", 0.5),
            ("ndcg@2", 0.25 / 3f64.log2()),
            ("mrr", 7.0 / 48.0),
            ("mrr@11", 1.0 / 8.0),
            ("recall@10", 0.25),
            ("precision@10", 0.025),
        ] {
            let metric: Option<Metric> = name.parse().ok();
            assert_eq!(metric.map(|metric| metric.to_string()).as_deref(), Some(name));
            assert!(metric.is_some_and(|metric| (metric.of(&q) - value).abs() < 1e-15), "{name}");
        }
        for name in ["hr", "hr@0", "hr@-1", "mrr@", "recall", "p@10", ""] {
            let error = name.parse::<Metric>().err().map(|error| error.to_string());
            assert_eq!(
                error,
                Some(format!("metric: expected hr@N, ndcg@N, mrr, mrr@N, recall@N or precision@N, found `{name}`"))
            );
        }
    }

    #[test]
    fn a_miss_counts_zero_in_the_strict_mrr() {
        assert_eq!(quality(None, &[None, Some(2)]).mrr(), 0.25);
    }

    #[test]
    fn no_query_is_zero_not_nan() {
        assert_eq!((quality(None, &[]).hit_rate(1), quality(Some(9), &[]).mrr()), (0.0, 0.0));
    }
}
