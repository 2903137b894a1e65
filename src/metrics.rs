//! Retrieval quality from the rank of one target per query: hit rate, NDCG and MRR, as the reference defines them.

/// Cut-offs of the hit rate that tables show.
pub const HIT_RATE_AT: [usize; 6] = [1, 5, 10, 50, 100, 200];

/// Cut-offs of NDCG that tables show.
pub const NDCG_AT: [usize; 3] = [10, 50, 200];

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
    fn a_miss_counts_zero_in_the_strict_mrr() {
        assert_eq!(quality(None, &[None, Some(2)]).mrr(), 0.25);
    }

    #[test]
    fn no_query_is_zero_not_nan() {
        assert_eq!((quality(None, &[]).hit_rate(1), quality(Some(9), &[]).mrr()), (0.0, 0.0));
    }
}
