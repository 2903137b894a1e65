//! First stages: a cheap scan that leaves few candidates for the full similarity (arXiv 2407.15462, section 4).

use super::algorithm::Algorithm;
use super::first_stage::{self, FirstStage, MolQueries};
use super::tangent;
use crate::backend::{
    CandidateScan, Columns, DeviceIndex, Hits, QueryBatch, Retrieval, Retrieved, ScoredPosition, Scorer,
};
use crate::error::Parameter;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Positions of the candidates of each query, ascending, each once.
pub(super) type Candidates = Vec<Vec<u32>>;

impl FirstStage<'_> {
    /// At least `k` candidates per query, as far as so many items are left and can be scored: where `retrieval`, which is that of
    /// the algorithm's own numbers, does not suffice for a query, they are doubled for that query until they do, or are all items.
    ///
    /// # Errors
    /// If the algorithm collects none, needs what the index does not have, or the device fails.
    pub fn collect(&self, algorithm: Algorithm, retrieval: &Retrieval, k: usize) -> Result<Candidates> {
        let first = self.candidates(retrieval)?;
        let more = |stage: &FirstStage, scale| stage.candidates(&stage.retrieval(algorithm, scale)?).map(Some);
        Ok(self.doubled(k, first, Vec::len, |list, more| *list = more, more)?.unwrap_or_default())
    }

    /// [`FirstStage::collect`] and the rescoring of the candidates, on the device. `None` where it cannot do it so.
    ///
    /// # Errors
    /// As there.
    pub fn retrieve(
        &self,
        algorithm: Algorithm,
        retrieval: &Retrieval,
        k: usize,
        keep: bool,
    ) -> Result<Option<Vec<Retrieved>>> {
        let retrieve = |stage: &FirstStage, retrieval: &Retrieval| {
            stage.snapshot.retrieve(stage.context, retrieval, stage.queries, (k, keep), stage.excluded)
        };
        let Some(first) = retrieve(self, retrieval)? else { return Ok(None) };
        let more = |stage: &FirstStage, scale| retrieve(stage, &stage.retrieval(algorithm, scale)?);
        let replace = |before: &mut Retrieved, found: Retrieved| {
            *before = Retrieved { n_scored: before.n_scored + found.n_scored, ..found };
        };
        self.doubled(k, first, |retrieved| retrieved.n_candidates, replace, more)
    }

    /// `found` for each query; for those of fewer than `k` items though more are left, what `more` finds with twice, four times,
    /// ... the algorithm's numbers, until it is enough or all items were asked for. `None` where `more` finds nothing at all.
    fn doubled<T>(
        &self,
        k: usize,
        mut found: Vec<T>,
        n_found: impl Fn(&T) -> usize,
        replace: impl Fn(&mut T, T),
        more: impl Fn(&FirstStage, usize) -> Result<Option<Vec<T>>>,
    ) -> Result<Option<Vec<T>>> {
        let mut short: Vec<usize> = (0..found.len()).collect();
        let (n_items, mut scale) = (self.snapshot.len(), 1usize);
        while scale < n_items {
            scale = scale.saturating_mul(2);
            short.retain(|&query| {
                n_found(&found[query]) < k && n_found(&found[query]) < self.snapshot.left(self.excluded, query)
            });
            if short.is_empty() {
                break;
            }
            let batch = self.queries.batch().select(&short);
            let excluded = self.snapshot.select_queries(self.excluded, &short);
            let queries = batch.prepared();
            let Some(lists) = more(&self.of_some(&short, &queries, &excluded), scale)? else { return Ok(None) };
            short.iter().zip(lists).for_each(|(&query, list)| replace(&mut found[query], list));
        }
        Ok(Some(found))
    }

    /// How `algorithm` finds candidates with `scale` times its own numbers.
    ///
    /// # Errors
    /// If it collects none, needs what the index does not have, or the device fails.
    pub fn retrieval(&self, algorithm: Algorithm, scale: usize) -> Result<Retrieval> {
        let n_items = self.snapshot.len();
        let scaled = |n: usize| n.saturating_mul(scale).min(n_items);
        let of_tokens = self.snapshot.scorer() == Scorer::MaxSim;
        let mol = || self.mol(algorithm);
        let probes = |n: usize| n.saturating_mul(scale);
        let scans = match algorithm {
            Algorithm::Exact | Algorithm::ExactPruned | Algorithm::Mips => {
                let found = format!("`{algorithm}`");
                return Err(Error::argument(Parameter::Algorithm, "one that collects candidates", found));
            }
            Algorithm::Naive { per_group } if of_tokens => vec![CandidateScan::Tokens { n: scaled(per_group) }],
            Algorithm::Avg { candidates } if of_tokens => {
                let vectors = self.queries.batch().embeddings.clone();
                vec![CandidateScan::Best { vectors, columns: Columns::Mean, n: scaled(candidates), per_query: 1 }]
            }
            Algorithm::Centroids { candidates } if of_tokens => {
                vec![CandidateScan::Centroids { n: scaled(candidates) }]
            }
            Algorithm::Centroids { .. } => return Err(first_stage::without_tokens(algorithm)),
            Algorithm::Naive { per_group } => mol()?.naive(scaled(per_group), None),
            Algorithm::NaiveIvf { per_group, n_probe } => mol()?.naive(scaled(per_group), Some(probes(n_probe))),
            Algorithm::Avg { candidates } => vec![mol()?.avg(scaled(candidates))],
            Algorithm::Comb { per_group, candidates } => {
                let mol = mol()?;
                let avg = mol.avg(scaled(candidates));
                mol.naive(scaled(per_group), None).into_iter().chain([avg]).collect()
            }
            Algorithm::HIndexer { candidates } => vec![self.h_indexer(mol()?, scaled(candidates))?],
            Algorithm::Tangent { candidates } => {
                let mol = mol()?;
                vec![mol.along(&tangent::derivatives(self, mol, candidates)?, scaled(candidates))]
            }
            Algorithm::TangentSampled { candidates } => {
                let mol = mol()?;
                vec![mol.along(&tangent::sampled(self, mol, candidates)?, scaled(candidates))]
            }
            Algorithm::TangentIvf { candidates, n_probe } => {
                let mol = mol()?;
                let vectors = tangent::vectors(mol, &tangent::derivatives(self, mol, candidates)?);
                let (n, n_probe) = (scaled(candidates), probes(n_probe));
                vec![CandidateScan::Lists { vectors, columns: Columns::All, n_probe, n, per_query: 1 }]
            }
            Algorithm::Distilled { candidates } => {
                mol()?;
                vec![CandidateScan::Distilled { n: scaled(candidates) }]
            }
            Algorithm::Cascade { tangent, .. } => {
                let mol = mol()?;
                vec![mol.along(&tangent::derivatives(self, mol, tangent)?, scaled(tangent))]
            }
        };
        let distilled = match algorithm {
            Algorithm::Cascade { distilled, .. } => Some(scaled(distilled)),
            _ => None,
        };
        Ok(Retrieval { scans, distilled })
    }

    /// The candidates of a retrieval, scan by scan.
    fn candidates(&self, retrieval: &Retrieval) -> Result<Candidates> {
        let mut lists = vec![Vec::new(); self.queries.batch().len()];
        for scan in &retrieval.scans {
            lists.iter_mut().zip(self.found(scan)?).for_each(|(list, found)| list.extend(found));
        }
        lists.iter_mut().for_each(unique);
        let Some(n) = retrieval.distilled else { return Ok(lists) };
        let scores = self.snapshot.rescore(self.context, Scorer::Distilled, self.queries, &lists)?;
        let keep = |(list, scores): (Vec<u32>, Vec<f32>)| {
            let pairs = list.into_iter().zip(scores);
            let mut hits: Vec<_> = pairs.map(|(position, score)| ScoredPosition { position, score }).collect();
            self.snapshot.sort(&mut hits);
            hits.truncate(n);
            hits
        };
        let mut lists = positions(lists.into_iter().zip(scores).map(keep).collect(), 1);
        lists.iter_mut().for_each(unique);
        Ok(lists)
    }

    /// What one scan finds for each query, in any order.
    fn found(&self, scan: &CandidateScan) -> Result<Candidates> {
        let (context, snapshot, excluded) = (self.context, self.snapshot, self.excluded);
        Ok(match scan {
            CandidateScan::Best { vectors, columns, n, per_query } => {
                let k = (*n, *per_query);
                positions(snapshot.scan_components(context, vectors, *columns, k, excluded)?, *per_query)
            }
            CandidateScan::Lists { vectors, columns, n_probe, n, per_query } => {
                let k = (*n, *per_query);
                positions(snapshot.scan_lists(context, vectors, *columns, *n_probe, k, excluded)?, *per_query)
            }
            CandidateScan::Above { vectors, columns, thresholds, .. } => {
                snapshot.above(context, vectors, *columns, thresholds, excluded)?
            }
            CandidateScan::Distilled { n } => {
                positions(snapshot.scan(context, Scorer::Distilled, self.queries, *n, excluded)?, 1)
            }
            CandidateScan::Centroids { n } => snapshot.scan_centroids(context, self.queries, *n, excluded)?,
            CandidateScan::Tokens { n } => self.of_each_token(*n)?,
        })
    }

    /// The best `n` items of each token embedding of a query.
    fn of_each_token(&self, n: usize) -> Result<Candidates> {
        let batch = self.queries.batch();
        let Some(tokens) = &batch.token_embeddings else { return Ok(vec![Vec::new(); batch.len()]) };
        let queries: Vec<usize> = (0..tokens.len()).flat_map(|query| tokens.range(query).map(move |_| query)).collect();
        let excluded = self.snapshot.select_queries(self.excluded, &queries);
        let single = QueryBatch::of_tokens(tokens.single_vectors());
        let hits = self.snapshot.scan(self.context, Scorer::MaxSim, &single.prepared(), n, &excluded)?;
        let mut lists = vec![Vec::new(); batch.len()];
        queries.iter().zip(hits).for_each(|(&query, hits)| lists[query].extend(hits.iter().map(|hit| hit.position)));
        Ok(lists)
    }

    /// All items above a threshold that about `n` of the index exceed, going by the sample.
    fn h_indexer(&self, mol: &MolQueries, n: usize) -> Result<CandidateScan> {
        let (vectors, columns, n_items) = (mol.sums(), Columns::Mean, self.snapshot.len());
        let everything = |vectors: Tensor| {
            let thresholds = vec![f32::NEG_INFINITY; vectors.rows()];
            CandidateScan::Above { vectors, columns, thresholds, expected: n_items }
        };
        let Some(sample) = self.snapshot.sample()? else { return Ok(everything(vectors)) };
        let expected = n as f64 * sample.len() as f64 / n_items.max(1) as f64;
        // Three standard deviations of the number of sampled items above the threshold, on the side of too many candidates.
        let share = expected / sample.len() as f64;
        let rank = (expected + 3.0 * (expected * (1.0 - share).max(0.0)).sqrt()).ceil() as usize;
        if rank >= sample.len() {
            return Ok(everything(vectors));
        }
        let none = Default::default();
        let best = sample.index().scan_components(self.context, &vectors, columns, rank.max(1), &none)?;
        let thresholds = best.iter().map(|hits| hits.last().map_or(f32::NEG_INFINITY, |hit| hit.score)).collect();
        let expected = (rank as u64 * n_items as u64).div_ceil(sample.len() as u64) as usize;
        Ok(CandidateScan::Above { vectors, columns, thresholds, expected })
    }
}

impl MolQueries<'_> {
    /// The best `n` by <f_n, g_m>, for every n and m, of everything or of the lists probed.
    fn naive(&self, n: usize, n_probe: Option<usize>) -> Vec<CandidateScan> {
        let config = &self.similarity.mol.config;
        let (per_query, d_p) = (config.query_dot_product_groups, config.dot_product_dimension);
        let vectors = Tensor::trusted(vec![self.components.rows() * per_query, d_p], self.components.data().to_vec());
        let scan = |m| {
            let (vectors, columns) = (vectors.clone(), Columns::Group(m));
            match n_probe {
                None => CandidateScan::Best { vectors, columns, n, per_query },
                Some(n_probe) => CandidateScan::Lists { vectors, columns, n_probe, n, per_query },
            }
        };
        (0..config.item_dot_product_groups).map(scan).collect()
    }

    /// The best `n` by the linear combination of logits with coefficients `derivatives` (B, L).
    fn along(&self, derivatives: &Tensor, n: usize) -> CandidateScan {
        let (vectors, columns) = tangent::reduced(self, tangent::vectors(self, derivatives));
        CandidateScan::Best { vectors, columns, n, per_query: 1 }
    }

    /// The best `n` by (sum_n f_n) . (mean_m g_m).
    fn avg(&self, n: usize) -> CandidateScan {
        CandidateScan::Best { vectors: self.sums(), columns: Columns::Mean, n, per_query: 1 }
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
