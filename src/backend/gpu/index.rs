//! An item index on the device: its tables, and what to scan for each question.

use std::ops::Range;
use std::sync::Arc;

use super::device::{Buffer, Gpu};
use super::kernels::Recorder;
use super::scan::{
    GpuMol, InvertedLists, ItemSource, ItemTable, QueryParts, Scan, ScanLimits, ShaderVariant, TokenItems,
    TokenQueries, shards,
};
use crate::Result;
use crate::backend::{Columns, Exclusions, PreparedQueries, Scorer, SearchContext, Similarity, check};
use crate::config::MolConfig;
use crate::tables::{MolTables, Tables};
use crate::tensor::Tensor;

/// An item index on a device.
#[derive(Debug)]
pub struct GpuIndex {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) limits: ScanLimits,
    pub(crate) host: Arc<Tables>,
    /// Raw embeddings; of [`crate::tables::Form::Raw`] with gate part and norms.
    pub(crate) raw: ItemTable,
    pub(crate) dot: ShaderVariant,
    pub(crate) mol: Option<MolIndex>,
    pub(crate) tokens: Option<TokenItems>,
    pub(crate) lists: Vec<InvertedLists>,
}

#[derive(Debug)]
pub(crate) struct MolIndex {
    pub(crate) similarity: GpuMol,
    /// Components and gate part, where they are kept.
    pub(crate) components: Option<ItemTable>,
    pub(crate) mean: ItemTable,
    pub(crate) principal: Option<ItemTable>,
}

impl GpuIndex {
    /// Makes `tables` searchable; see [`crate::backend::Backend::load`]. `limits` are lowered to those of the device.
    ///
    /// # Errors
    /// If the tables do not fit, or the device fails.
    pub fn new(
        context: &SearchContext,
        gpu: &Arc<Gpu>,
        tables: Arc<Tables>,
        similarity: Option<&Similarity>,
        limits: ScanLimits,
    ) -> Result<GpuIndex> {
        let limits = limits.on(gpu);
        let dim = tables.raw.width();
        let mol = similarity.zip(tables.mol.as_ref());
        let raw = match mol {
            Some((_, MolTables { components: None, inverse_norms, gate, .. })) => {
                ItemSource { vectors: &tables.raw, gate: gate.as_ref(), norms: inverse_norms.as_ref(), in_lines: true }
            }
            _ => ItemSource::plain(&tables.raw),
        };
        let components = mol.and_then(|(_, mol)| {
            Some(ItemSource { vectors: mol.components.as_ref()?, gate: mol.gate.as_ref(), norms: None, in_lines: true })
        });
        let mean = mol.map(|(_, mol)| ItemSource::plain(&mol.mean));
        let principal = mol.and_then(|(_, mol)| mol.principal.as_ref()).map(ItemSource::plain);
        let sources = [Some(raw), components, mean, principal];
        let widest = sources.iter().flatten().map(|source| source.layout().tile_bytes()).max().unwrap_or(0);
        let shards = shards(tables.len(), widest, &limits)?;
        let load = |source: ItemSource| ItemTable::new(context, gpu, source, &shards, &limits);
        let raw = load(raw)?;
        let components = components.map(load).transpose()?;
        let mol = match mol.zip(mean) {
            None => None,
            Some(((learned, _), mean)) => {
                let layout = &components.as_ref().unwrap_or(&raw).layout;
                let similarity = GpuMol::new(gpu, learned, layout, (tables.form(), dim), limits.thread_logits)?;
                let principal = principal.map(load).transpose()?;
                Some(MolIndex { similarity, components, mean: load(mean)?, principal })
            }
        };
        let lists =
            tables.lists.iter().map(|lists| InvertedLists::new(context, gpu, lists, &limits)).collect::<Result<_>>()?;
        let dot = ShaderVariant::dot(&raw.layout, (0, 1), dim);
        let tokens = tables.tokens.as_ref().map(|tokens| TokenItems::new(context, gpu, tokens, &limits)).transpose()?;
        Ok(GpuIndex { gpu: gpu.clone(), limits, host: tables, raw, dot, mol, tokens, lists })
    }

    pub(crate) fn mol(&self) -> Result<&MolIndex> {
        self.mol.as_ref().ok_or_else(check::no_mol)
    }

    /// The table that Mixture-of-Logits reads.
    pub(crate) fn mol_table<'a>(&'a self, mol: &'a MolIndex) -> &'a ItemTable {
        mol.components.as_ref().unwrap_or(&self.raw)
    }

    /// Does `work` with a scan of the tables by a scorer of mixtures.
    pub(crate) fn mixture_scan<T>(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: &PreparedQueries,
        excluded: &Exclusions,
        work: impl FnOnce(Scan, &ItemTable) -> Result<T>,
    ) -> Result<T> {
        let mol = self.mol()?;
        let (variant, weights) = mol.similarity.scorer(scorer)?;
        let query_parts =
            |recorder: &mut Recorder, range: Range<usize>| mol.similarity.query_parts(recorder, queries, range);
        let scan = self.scan_by(context, variant, queries.batch().len(), excluded, &query_parts);
        work(Scan { weights: Some(weights), ..scan }, self.mol_table(mol))
    }

    /// Does `work` with a scan of the tables that first stages use.
    pub(crate) fn component_scan<T>(
        &self,
        context: &SearchContext,
        vectors: &Tensor,
        columns: Columns,
        excluded: &Exclusions,
        work: impl FnOnce(&Scan, &ItemTable) -> Result<T>,
    ) -> Result<T> {
        if self.tokens.is_some() {
            let rows = |recorder: &mut Recorder, range: Range<usize>| vec![uploaded_rows(recorder, vectors, range)];
            return work(&self.scan_by(context, &self.dot, vectors.rows(), excluded, &rows), &self.raw);
        }
        let mol = self.mol()?;
        let config = mol.similarity.config();
        let (first, groups) = match columns {
            Columns::Group(group) => (group, 1),
            Columns::All => (0, config.item_dot_product_groups),
            Columns::Mean | Columns::Principal => (0, 1),
        };
        let (table, transform) = match (columns, &mol.components) {
            (Columns::Mean, _) => (&mol.mean, None),
            (Columns::Principal, _) => (mol.principal.as_ref().ok_or_else(check::no_mol)?, None),
            (_, Some(components)) => (components, None),
            (_, None) => (&self.raw, mol.similarity.transform()),
        };
        let variant = match transform {
            None => ShaderVariant::dot(&table.layout, (first, groups), vectors.width() / groups),
            Some(_) => ShaderVariant::transformed_dot(&table.layout, (first, groups), self.host.raw.width()),
        };
        let query_parts = |recorder: &mut Recorder, range: Range<usize>| {
            let n = range.len() * groups;
            let rows = uploaded_rows(recorder, vectors, range);
            match transform {
                None => vec![rows],
                Some(transform) => transform.each(recorder, &rows, n, |i| first + i % groups).to_vec(),
            }
        };
        work(&self.scan_by(context, &variant, vectors.rows(), excluded, &query_parts), table)
    }

    /// Does `work` with a scan of the inverted lists number `lists`.
    pub(crate) fn list_scan<T>(
        &self,
        context: &SearchContext,
        lists: usize,
        vectors: &Tensor,
        excluded: &Exclusions,
        work: impl FnOnce(&Scan, &InvertedLists) -> Result<T>,
    ) -> Result<T> {
        let (vectors_of, lists) = (&self.host.lists[lists].vectors, &self.lists[lists]);
        let variant = ShaderVariant::dot(&lists.table.layout, (0, vectors_of.groups()), vectors_of.group_width());
        let rows = |recorder: &mut Recorder, range| vec![uploaded_rows(recorder, vectors, range)];
        work(&self.scan_by(context, &variant, vectors.rows(), excluded, &rows), lists)
    }

    pub(crate) fn scan_by<'a>(
        &'a self,
        context: &'a SearchContext,
        variant: &'a ShaderVariant,
        n_queries: usize,
        excluded: &'a Exclusions,
        query_parts: QueryParts<'a>,
    ) -> Scan<'a> {
        Scan {
            context,
            gpu: &self.gpu,
            limits: &self.limits,
            variant,
            tier: None,
            weights: None,
            excluded,
            n_queries,
            query_parts,
            tokens: None,
        }
    }

    /// The token embeddings of the items, and of queries that fit them.
    pub(crate) fn token_queries<'a>(&'a self, queries: &'a PreparedQueries) -> Result<TokenQueries<'a>> {
        let items = self.tokens.as_ref().ok_or_else(check::no_tokens)?;
        Ok(TokenQueries { items, queries: check::tokens(self.host.raw.width(), queries.batch())? })
    }

    /// What [`check::scan`] wants to know.
    pub(crate) fn extent(&self) -> (usize, usize, Option<&MolConfig>) {
        (self.host.len(), self.host.raw.width(), self.mol.as_ref().map(|mol| mol.similarity.config()))
    }
}

/// Rows `range` of a matrix.
pub(crate) fn uploaded_rows(recorder: &mut Recorder, rows: &Tensor, range: Range<usize>) -> Buffer {
    recorder.upload(&rows.data()[range.start * rows.width()..range.end * rows.width()])
}
