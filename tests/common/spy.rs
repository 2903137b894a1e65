//! A backend that tells a test about every piece of work on its indices, before it is done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rails_wgpu::backend::{
    Backend, Columns, DeviceIndex, DeviceInfo, Exclusions, Hits, PreparedQueries, Probes, QueryEncoder, Retrieval,
    Retrieved, ScoredCandidates, Scorer, SearchContext, Similarity,
};
use rails_wgpu::model::{Encoder, Mol, TokenPooling};
use rails_wgpu::tables::{ItemSide, Tables};
use rails_wgpu::tensor::Tensor;
use rails_wgpu::{Error, Result, TokenEmbeddings};

/// What a test wants to do before piece number 1, 2, ... of the work.
type Before = dyn Fn(usize) + Send + Sync;

/// Counts pieces of work.
pub struct Spy {
    before: Box<Before>,
    begun: AtomicUsize,
    /// Pieces that a device has given up by itself because the search was cancelled.
    given_up: AtomicUsize,
    /// The batches that pieces worked on, and the query sides of each.
    sides: Mutex<BTreeMap<usize, usize>>,
    scan_by_scan: AtomicBool,
}

impl Spy {
    pub fn new(before: impl Fn(usize) + Send + Sync + 'static) -> Arc<Spy> {
        Arc::new(Spy {
            before: Box::new(before),
            begun: AtomicUsize::new(0),
            given_up: AtomicUsize::new(0),
            sides: Mutex::default(),
            scan_by_scan: AtomicBool::new(false),
        })
    }

    /// Pieces begun so far.
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    pub fn given_up(&self) -> usize {
        self.given_up.load(Ordering::SeqCst)
    }

    /// Query sides of each batch that has been worked on since this was asked for last.
    pub fn query_sides(&self) -> Vec<usize> {
        std::mem::take(&mut *self.sides.lock().unwrap()).into_values().collect()
    }

    /// Whether approximate searches go scan by scan, even where a device could do all of it in one go.
    pub fn set_scan_by_scan(&self, scan_by_scan: bool) {
        self.scan_by_scan.store(scan_by_scan, Ordering::SeqCst);
    }

    /// A piece of work on the query side.
    fn scored<T>(&self, queries: &PreparedQueries, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = self.piece(work);
        self.sides.lock().unwrap().insert(std::ptr::from_ref(queries).cast::<()>() as usize, queries.query_sides());
        done
    }

    fn piece<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        (self.before)(self.begun.fetch_add(1, Ordering::SeqCst) + 1);
        work().inspect_err(|error| {
            self.given_up.fetch_add(usize::from(matches!(error, Error::Cancelled)), Ordering::SeqCst);
        })
    }
}

#[derive(Clone)]
pub struct SpiedBackend {
    pub inner: Arc<dyn Backend>,
    pub spy: Arc<Spy>,
}

impl Backend for SpiedBackend {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    fn share(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }

    fn encoder(&self, encoder: &Encoder<Tensor>) -> Result<Box<dyn QueryEncoder>> {
        self.inner.encoder(encoder)
    }

    fn pool(&self, pooling: &TokenPooling, texts: &TokenEmbeddings) -> Result<Tensor> {
        self.inner.pool(pooling, texts)
    }

    fn item_side(&self, mol: &Mol<Tensor>, items: &Tensor) -> Result<ItemSide> {
        self.inner.item_side(mol, items)
    }

    fn retrieves(&self) -> bool {
        !self.spy.scan_by_scan.load(Ordering::SeqCst) && self.inner.retrieves()
    }

    fn load(
        &self,
        context: &SearchContext,
        tables: Arc<Tables>,
        similarity: Option<&Similarity>,
    ) -> Result<Box<dyn DeviceIndex>> {
        Ok(Box::new(SpiedIndex { inner: self.inner.load(context, tables, similarity)?, spy: self.spy.clone() }))
    }
}

struct SpiedIndex {
    inner: Box<dyn DeviceIndex>,
    spy: Arc<Spy>,
}

impl DeviceIndex for SpiedIndex {
    fn scan(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: &PreparedQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Hits> {
        self.spy.scored(queries, || self.inner.scan(context, scorer, queries, k, excluded))
    }

    fn scan_pruned(
        &self,
        context: &SearchContext,
        queries: &PreparedQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<(Hits, u64)> {
        self.spy.scored(queries, || self.inner.scan_pruned(context, queries, k, excluded))
    }

    fn scan_components(
        &self,
        context: &SearchContext,
        vectors: &Tensor,
        columns: Columns,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Hits> {
        self.spy.piece(|| self.inner.scan_components(context, vectors, columns, k, excluded))
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
        self.spy.piece(|| self.inner.scan_lists(context, lists, vectors, probes, k, excluded))
    }

    fn above(
        &self,
        context: &SearchContext,
        vectors: &Tensor,
        columns: Columns,
        thresholds: &[f32],
        excluded: &Exclusions,
    ) -> Result<Vec<Vec<u32>>> {
        self.spy.piece(|| self.inner.above(context, vectors, columns, thresholds, excluded))
    }

    fn rescore(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: &PreparedQueries,
        candidates: &[Vec<u32>],
    ) -> Result<Vec<Vec<f32>>> {
        self.spy.scored(queries, || self.inner.rescore(context, scorer, queries, candidates))
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
        self.spy.scored(queries, || self.inner.retrieve(context, retrieval, probes, queries, (k, keep), excluded))
    }

    fn retrieve_candidates(
        &self,
        context: &SearchContext,
        retrieval: &Retrieval,
        probes: &[Option<Probes>],
        queries: &PreparedQueries,
        excluded: &Exclusions,
    ) -> Result<Option<Vec<ScoredCandidates>>> {
        self.spy.scored(queries, || self.inner.retrieve_candidates(context, retrieval, probes, queries, excluded))
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
}
