//! First stages: a cheap scan that leaves few candidates for the full similarity (arXiv 2407.15462, section 4).

use super::algorithm::Algorithm;
use super::first_stage::FirstStage;
use super::tangent;
use crate::backend::{Columns, DeviceIndex, Hits, ScoredPosition, Scorer};
use crate::error::Parameter;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Positions of the candidates of each query, ascending, each once.
pub(super) type Candidates = Vec<Vec<u32>>;

impl FirstStage<'_> {
    /// At least `k` candidates per query, as far as so many items are left and can be scored: where the algorithm's own number
    /// does not suffice for a query, it is doubled for that query until it does, or is that of all items.
    ///
    /// # Errors
    /// If the algorithm collects none, needs what the index does not have, or the device fails.
    pub fn collect(&self, algorithm: Algorithm, k: usize) -> Result<Candidates> {
        let mut lists = self.candidates(algorithm, 1)?;
        lists.iter_mut().for_each(unique);
        let mut short: Vec<usize> = (0..lists.len()).collect();
        let (n_items, mut scale) = (self.snapshot.len(), 1usize);
        while scale < n_items {
            scale = scale.saturating_mul(2);
            short.retain(|&query| {
                lists[query].len() < k && lists[query].len() < self.snapshot.left(self.excluded, query)
            });
            if short.is_empty() {
                break;
            }
            let batch = self.queries.batch().select(&short);
            let queries = batch.prepared();
            let excluded = self.snapshot.select_queries(self.excluded, &short);
            let components = self.components.select_rows(&short);
            let stage = FirstStage { queries: &queries, excluded: &excluded, components, ..*self };
            for (&query, mut list) in short.iter().zip(stage.candidates(algorithm, scale)?) {
                unique(&mut list);
                lists[query] = list;
            }
        }
        Ok(lists)
    }

    /// The candidates of `algorithm` with `scale` times its own numbers.
    fn candidates(&self, algorithm: Algorithm, scale: usize) -> Result<Candidates> {
        let n_items = self.snapshot.len();
        let scaled = |n: usize| n.saturating_mul(scale).min(n_items);
        let probes = |n: usize| n.saturating_mul(scale);
        Ok(match algorithm {
            Algorithm::Naive { per_group } => self.naive(scaled(per_group), None)?,
            Algorithm::NaiveIvf { per_group, n_probe } => self.naive(scaled(per_group), Some(probes(n_probe)))?,
            Algorithm::Avg { candidates } => positions(self.avg(scaled(candidates))?, 1),
            Algorithm::Comb { per_group, candidates } => {
                let mut lists = self.naive(scaled(per_group), None)?;
                let avg = positions(self.avg(scaled(candidates))?, 1);
                lists.iter_mut().zip(avg).for_each(|(list, avg)| list.extend(avg));
                lists
            }
            Algorithm::HIndexer { candidates } => self.h_indexer(scaled(candidates))?,
            Algorithm::Tangent { candidates } => {
                self.along(&tangent::derivatives(self, candidates)?, scaled(candidates))?
            }
            Algorithm::TangentSampled { candidates } => {
                self.along(&tangent::sampled(self, candidates)?, scaled(candidates))?
            }
            Algorithm::TangentIvf { candidates, n_probe } => {
                let vectors = tangent::vectors(self, &tangent::derivatives(self, candidates)?);
                let k = (scaled(candidates), 1);
                let (columns, n_probe) = (Columns::All, probes(n_probe));
                positions(self.snapshot.scan_lists(self.context, &vectors, columns, n_probe, k, self.excluded)?, 1)
            }
            Algorithm::Distilled { candidates } => positions(
                self.snapshot.scan(self.context, Scorer::Distilled, self.queries, scaled(candidates), self.excluded)?,
                1,
            ),
            Algorithm::Cascade { tangent, distilled } => {
                let mut first = self.along(&tangent::derivatives(self, tangent)?, scaled(tangent))?;
                first.iter_mut().for_each(|list| list.sort_unstable());
                let scores = self.snapshot.rescore(self.context, Scorer::Distilled, self.queries, &first)?;
                let keep = |(list, scores): (Vec<u32>, Vec<f32>)| {
                    let pairs = list.into_iter().zip(scores);
                    let mut hits: Vec<_> = pairs.map(|(position, score)| ScoredPosition { position, score }).collect();
                    self.snapshot.sort(&mut hits);
                    hits.truncate(scaled(distilled));
                    hits
                };
                positions(first.into_iter().zip(scores).map(keep).collect(), 1)
            }
            Algorithm::Exact | Algorithm::ExactPruned | Algorithm::Mips => {
                return Err(Error::argument(
                    Parameter::Algorithm,
                    "one that collects candidates",
                    format!("`{algorithm}`"),
                ));
            }
        })
    }

    /// The best `n` by <f_n, g_m>, for every n and m, of everything or of the lists probed.
    fn naive(&self, n: usize, n_probe: Option<usize>) -> Result<Candidates> {
        let (p_q, d_p) =
            (self.similarity.mol.config.query_dot_product_groups, self.similarity.mol.config.dot_product_dimension);
        let n_queries = self.queries.batch().len();
        let vectors = Tensor::trusted(vec![n_queries * p_q, d_p], self.components.data().to_vec());
        let mut lists = vec![Vec::new(); n_queries];
        for m in 0..self.similarity.mol.config.item_dot_product_groups {
            let columns = Columns::Group(m);
            let hits = match n_probe {
                None => self.best(&vectors, columns, n, p_q)?,
                Some(probes) => {
                    self.snapshot.scan_lists(self.context, &vectors, columns, probes, (n, p_q), self.excluded)?
                }
            };
            lists.iter_mut().zip(positions(hits, p_q)).for_each(|(list, found)| list.extend(found));
        }
        Ok(lists)
    }

    /// The best `n` by the linear combination of logits with coefficients `derivatives` (B, L).
    fn along(&self, derivatives: &Tensor, n: usize) -> Result<Candidates> {
        let (vectors, columns) = tangent::reduced(self, tangent::vectors(self, derivatives));
        Ok(positions(self.best(&vectors, columns, n, 1)?, 1))
    }

    /// The best `n` by (sum_n f_n) . (mean_m g_m).
    fn avg(&self, n: usize) -> Result<Hits> {
        self.best(&self.sums(), Columns::Mean, n, 1)
    }

    /// All items above a threshold that about `n` of the index exceed, going by the sample.
    fn h_indexer(&self, n: usize) -> Result<Candidates> {
        let Some(sample) = self.snapshot.sample()? else {
            return Ok(vec![Vec::new(); self.queries.batch().len()]);
        };
        let vectors = self.sums();
        let expected = n as f64 * sample.len() as f64 / self.snapshot.len().max(1) as f64;
        // Three standard deviations of the number of sampled items above the threshold, on the side of too many candidates.
        let share = expected / sample.len() as f64;
        let rank = (expected + 3.0 * (expected * (1.0 - share).max(0.0)).sqrt()).ceil() as usize;
        let thresholds: Vec<f32> = if rank >= sample.len() {
            vec![f32::NEG_INFINITY; vectors.rows()]
        } else {
            let none = Default::default();
            let best = sample.index().scan_components(self.context, &vectors, Columns::Mean, rank.max(1), &none)?;
            best.iter().map(|hits| hits.last().map_or(f32::NEG_INFINITY, |hit| hit.score)).collect()
        };
        self.snapshot.above(self.context, &vectors, Columns::Mean, &thresholds, self.excluded)
    }

    fn best(&self, vectors: &Tensor, columns: Columns, n: usize, per_query: usize) -> Result<Hits> {
        self.snapshot.scan_components(self.context, vectors, columns, (n, per_query), self.excluded)
    }
}

/// Sorts a list and leaves each position once.
fn unique(list: &mut Vec<u32>) {
    list.sort_unstable();
    list.dedup();
}

/// The positions that `per_query` vectors of each query have found.
fn positions(hits: Hits, per_query: usize) -> Candidates {
    hits.chunks(per_query).map(|hits| hits.iter().flatten().map(|hit| hit.position).collect()).collect()
}
