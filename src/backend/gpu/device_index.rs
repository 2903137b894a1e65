//! An item index on the device as a [`DeviceIndex`].

use super::first_stage::FirstStage;
use super::index::{GpuIndex, uploaded_rows};
use super::kernels::Recorder;
use super::retrieve::Retriever;
use super::scan::{InvertedLists, ItemTable, Scan, TokenItems, TokenQueries, chosen, rescore, slices};
use crate::Result;
use crate::backend::{
    Columns, DeviceIndex, DeviceOutput, Exclusions, Hits, PreparedQueries, Probes, Retrieval, Retrieved,
    ScoredCandidates, Scorer, SearchContext, check,
};
use crate::tensor::Tensor;

impl DeviceIndex for GpuIndex {
    fn scan(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: &PreparedQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Hits> {
        check::scan(self.extent(), scorer, queries.batch(), k, excluded)?;
        if let Scorer::MaxSim | Scorer::Centroids = scorer {
            let tokens = self.token_queries(queries)?;
            let variant = tokens.items.variant_for(tokens.queries);
            let none = |_: &mut Recorder, _: std::ops::Range<usize>| Vec::new();
            let scan = self.scan_by(context, &variant, queries.batch().len(), excluded, &none);
            return Ok(Scan { tokens: Some(tokens), ..scan }.best(&tokens.items.table, k, false)?.0);
        }
        if scorer != Scorer::Dot {
            return self.mixture_scan(context, scorer, queries, excluded, |scan, table| {
                let tier = chosen(&scan, table)?;
                Ok(Scan { tier, ..scan }.best(table, k, false)?.0)
            });
        }
        let rows = |recorder: &mut Recorder, range| vec![uploaded_rows(recorder, &queries.batch().embeddings, range)];
        let scan = self.scan_by(context, &self.dot, queries.batch().len(), excluded, &rows);
        Ok(scan.best(&self.raw, k, false)?.0)
    }

    fn scan_pruned(
        &self,
        context: &SearchContext,
        queries: &PreparedQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<(Hits, u64)> {
        check::scan(self.extent(), Scorer::Mol, queries.batch(), k, excluded)?;
        self.mixture_scan(context, Scorer::Mol, queries, excluded, |scan, table| scan.best(table, k, true))
    }

    fn scan_components(
        &self,
        context: &SearchContext,
        vectors: &Tensor,
        columns: Columns,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Hits> {
        check::components(&self.host, vectors, columns)?;
        check::top_k(self.host.len(), vectors.rows(), k, excluded)?;
        self.component_scan(context, vectors, columns, excluded, |scan, table| Ok(scan.best(table, k, false)?.0))
    }

    fn scan_lists(
        &self,
        context: &SearchContext,
        lists: usize,
        vectors: &Tensor,
        probes: &[Vec<u32>],
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Hits> {
        check::lists(&self.host, lists, vectors, probes)?;
        check::top_k(self.host.len(), vectors.rows(), k, excluded)?;
        self.list_scan(context, lists, vectors, excluded, |scan, lists| scan.best_of_lists(lists, probes, k))
    }

    fn above(
        &self,
        context: &SearchContext,
        vectors: &Tensor,
        columns: Columns,
        thresholds: &[f32],
        excluded: &Exclusions,
    ) -> Result<Vec<Vec<u32>>> {
        self.mol()?;
        check::components(&self.host, vectors, columns)?;
        check::thresholds(vectors.rows(), thresholds)?;
        check::exclusions(self.host.len(), vectors.rows(), excluded)?;
        self.component_scan(context, vectors, columns, excluded, |scan, table| scan.above(table, thresholds))
    }

    fn rescore(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: &PreparedQueries,
        candidates: &[Vec<u32>],
    ) -> Result<Vec<Vec<f32>>> {
        check::candidate_scorer(scorer)?;
        check::candidates(self.host.len(), queries.batch().len(), candidates)?;
        if scorer == Scorer::MaxSim {
            let TokenQueries { items, queries } = self.token_queries(queries)?;
            let most = self.limits.dispatch_flops / items.variant_for(queries).pair_flops;
            let mut scores = Vec::with_capacity(candidates.len());
            for range in slices(candidates, most as usize) {
                let some = queries.select(&range.clone().collect::<Vec<usize>>());
                let mut recorder = Recorder::with_context(context, &self.gpu);
                scores.extend(items.rescore(&mut recorder, &some, &candidates[range])?);
            }
            return Ok(scores);
        }
        check::mol_queries(self.host.raw.width(), self.extent().2, queries.batch())?;
        let mol = self.mol()?;
        let (variant, weights) = mol.similarity.scorer(scorer)?;
        let mut scores = Vec::with_capacity(candidates.len());
        for range in slices(candidates, (self.limits.dispatch_flops / variant.pair_flops) as usize) {
            let mut recorder = Recorder::with_context(context, &self.gpu);
            let parts = mol.similarity.query_parts(&mut recorder, queries, range.clone());
            let table = self.mol_table(mol);
            scores.extend(rescore(&mut recorder, variant, table, &weights.floats, &parts, &candidates[range])?);
        }
        Ok(scores)
    }

    fn retrieve(
        &self,
        context: &SearchContext,
        retrieval: &Retrieval,
        probes: &[Option<Probes>],
        queries: &PreparedQueries,
        (k, keep): (usize, bool),
        excluded: &Exclusions,
    ) -> Result<Option<Vec<Retrieved>>> {
        check::top_k(self.host.len(), queries.batch().len(), k, excluded)?;
        let first_stage = FirstStage::new((self, context), (retrieval, probes), queries, excluded)?;
        Retriever(first_stage).best(k, keep)
    }

    fn retrieve_candidates(
        &self,
        context: &SearchContext,
        retrieval: &Retrieval,
        probes: &[Option<Probes>],
        queries: &PreparedQueries,
        excluded: &Exclusions,
    ) -> Result<Option<Vec<ScoredCandidates>>> {
        check::exclusions(self.host.len(), queries.batch().len(), excluded)?;
        let first_stage = FirstStage::new((self, context), (retrieval, probes), queries, excluded)?;
        Retriever(first_stage).scored_candidates()
    }

    fn device_output(&self) -> Option<&dyn DeviceOutput> {
        Some(self)
    }

    fn bytes(&self) -> u64 {
        let mol = self.mol.iter().flat_map(|mol| mol.components.iter().chain(&mol.principal).chain([&mol.mean]));
        let tables: u64 = std::iter::once(&self.raw).chain(mol).map(ItemTable::bytes).sum();
        let tokens = self.tokens.as_ref().map_or(0, TokenItems::bytes);
        tables + tokens + self.lists.iter().map(InvertedLists::bytes).sum::<u64>()
    }
}
