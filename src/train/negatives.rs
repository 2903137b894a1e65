//! Which items a position is compared with.

use crate::config::NegativeSampling;
use crate::error::Parameter;
use crate::random::Stream;
use crate::train::TrainBatch;
use crate::{Error, Result, threads};

/// Draws that a thread makes at a time; an even number.
const PIECE: usize = 1 << 14;

/// Draws negatives.
#[derive(Clone, Debug)]
pub struct Negatives {
    sampling: NegativeSampling,
    /// Ids to draw from.
    ids: Vec<u32>,
    /// For each of the ids, how often it and those before it were counted. Only popularity needs it.
    sums: Vec<u32>,
    /// (item rows): logarithm of an item's share of all counts.
    log_shares: Vec<f32>,
}

impl Negatives {
    /// From the items with a count (item rows): how often each item occurs in the data. The counts matter to
    /// [`NegativeSampling::Popularity`] only.
    ///
    /// # Errors
    /// If no item has a count.
    pub fn new(sampling: NegativeSampling, counts: &[u32]) -> Result<Negatives> {
        let counted = || counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let ids: Vec<u32> = counted().map(|(id, _)| id as u32).collect();
        if ids.is_empty() {
            return Err(Error::argument(Parameter::ItemIds, "at least one item to draw negatives from", "none"));
        }
        let total: f64 = counts.iter().map(|&count| f64::from(count)).sum();
        if total > f64::from(u32::MAX) {
            return Err(Error::argument(Parameter::Dataset, "fewer than 2^32 events to draw negatives by", total));
        }
        let sums = counted().scan(0, |sum, (_, count)| {
            *sum += count;
            Some(*sum)
        });
        let sums = sums.collect();
        let log_shares = counts.iter().map(|&count| (f64::from(count.max(1)) / total).ln() as f32).collect();
        Ok(Negatives { sampling, ids, sums, log_shares })
    }

    /// Ids that are drawn from, in ascending order.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// `n` items for each supervised position of a batch, with replacement.
    pub fn draw(&self, stream: Stream, batch: &TrainBatch, n: usize) -> Vec<u32> {
        let of_batch: Vec<u32>;
        let ids = match self.sampling {
            NegativeSampling::InBatch => {
                let mut ids = [&batch.sequences.item_ids[..], &batch.targets].concat();
                // Neither masks nor what has no target.
                ids.retain(|&id| id > 0 && (id as usize) < self.log_shares.len());
                ids.sort_unstable();
                ids.dedup();
                of_batch = ids;
                &of_batch
            }
            _ => &self.ids,
        };
        let by_count = self.sampling == NegativeSampling::Popularity;
        let n_places = if by_count { self.sums.last().copied().unwrap_or(1) } else { ids.len() as u32 };
        let mut draws = vec![0; batch.supervised().len() * n];
        threads::for_each(draws.chunks_mut(PIECE).enumerate(), |(piece, draws)| {
            stream.fill_below((piece * PIECE) as u64, n_places, draws);
            for draw in draws {
                *draw = match by_count {
                    true => ids[self.sums.partition_point(|sum| sum <= draw)],
                    false => ids[*draw as usize],
                };
            }
        });
        draws
    }

    /// What is subtracted from the logits of these items: the logarithm of their probability to be drawn, if that differs by item.
    pub fn correction(&self, ids: &[u32]) -> Option<Vec<f32>> {
        let by_count = self.sampling == NegativeSampling::Popularity;
        // A mask is never drawn.
        let log_share = |&id: &u32| self.log_shares.get(id as usize).copied().unwrap_or(0.0);
        by_count.then(|| ids.iter().map(log_share).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::sequence::SequenceBatch;

    fn draws(sampling: NegativeSampling) -> Vec<u32> {
        let negatives = Negatives::new(sampling, &[0, 1, 0, 7, 2]).unwrap();
        let sequences = SequenceBatch { item_ids: vec![3, 3], ..SequenceBatch::default() };
        let batch = TrainBatch { sequences, targets: vec![3, 4] };
        let ids = negatives.draw(Random::new(1).stream(0, 0), &batch, 5000);
        assert_eq!(ids.len(), 10_000);
        (0..5).map(|id| ids.iter().filter(|&&drawn| drawn == id).count() as u32).collect()
    }

    #[test]
    fn each_way_of_sampling_has_its_shares() {
        let assert_near = |found: Vec<u32>, expected: [u32; 5]| {
            // Five standard deviations are at most 250.
            let near = found.iter().zip(expected).all(|(&n, e)| n.abs_diff(e) <= 250 && (n == 0) == (e == 0));
            assert!(near, "{found:?} instead of {expected:?}");
        };
        assert_near(draws(NegativeSampling::Uniform), [0, 3333, 0, 3333, 3333]);
        assert_near(draws(NegativeSampling::InBatch), [0, 0, 0, 5000, 5000]);
        assert_near(draws(NegativeSampling::Popularity), [0, 1000, 0, 7000, 2000]);
        let by_count = Negatives::new(NegativeSampling::Popularity, &[0, 1, 0, 7, 2]).unwrap();
        let correction = by_count.correction(&[3, 1]).unwrap();
        assert!((correction[0] - 0.7f32.ln()).abs() < 1e-6 && (correction[1] - 0.1f32.ln()).abs() < 1e-6);
        assert_eq!(Negatives::new(NegativeSampling::Uniform, &[0, 1]).unwrap().correction(&[1]), None);
        assert!(Negatives::new(NegativeSampling::Uniform, &[0, 0]).is_err());
    }
}
