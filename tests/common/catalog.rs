//! Items for tests of indexes: embeddings that depend on the id and on how often it was replaced, and queries.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{Backend, QueryBatch, Similarity};
use rails_wgpu::index::{IndexModel, IndexOptions, ItemIndex, ItemSource, OpenOptions};
use rails_wgpu::model::Mol;
use rails_wgpu::search::{Algorithm, Hit, Searcher};
use rails_wgpu::tensor::Tensor;

use super::models::{Random, Shape};

pub const DIM: usize = 6;

pub fn mol() -> Mol<Tensor> {
    Shape::default().mol(&mut Random::new(3), DIM)
}

pub fn similarity() -> Similarity {
    Similarity { mol: mol(), distilled: None }
}

pub fn cpu() -> Vec<Arc<dyn Backend>> {
    vec![Arc::new(Cpu::default())]
}

/// The embedding of item `id` in its edition `edition`.
pub fn row(id: u64, edition: u64) -> Vec<f32> {
    Random::new(id.wrapping_mul(1_000_003) ^ edition).tensor(&[DIM], 1.0).data().to_vec()
}

pub fn rows(ids: &[u64], edition: u64) -> Tensor {
    Tensor::new(vec![ids.len(), DIM], ids.iter().flat_map(|&id| row(id, edition)).collect()).unwrap()
}

pub fn queries(n: usize) -> QueryBatch {
    let embeddings = Random::new(99).tensor(&[n, DIM], 1.0);
    QueryBatch::new(embeddings).with_users((0..n as i64).map(|i| i * 37 - 5).collect::<Vec<i64>>())
}

/// What an index should hold.
#[derive(Clone, Default)]
pub struct Catalog(pub BTreeMap<u64, Vec<f32>>);

impl Catalog {
    pub fn add(&mut self, ids: &[u64], edition: u64) {
        ids.iter().for_each(|&id| drop(self.0.insert(id, row(id, edition))));
    }

    pub fn remove(&mut self, ids: &[u64]) {
        ids.iter().for_each(|id| drop(self.0.remove(id)));
    }

    pub fn ids(&self) -> Vec<u64> {
        self.0.keys().copied().collect()
    }

    pub fn embeddings(&self) -> Tensor {
        Tensor::new(vec![self.0.len(), DIM], self.0.values().flatten().copied().collect()).unwrap()
    }

    /// An index in memory, made at once.
    pub fn rebuilt(&self, options: IndexOptions) -> ItemIndex {
        ItemIndex::build(&cpu(), &self.ids(), &self.embeddings(), Some(similarity()), options).unwrap()
    }

    /// An index in `folder`.
    pub fn stored(&self, folder: &Path, options: IndexOptions) -> ItemIndex {
        let source = ItemSource::of_embeddings(self.ids(), self.embeddings());
        ItemIndex::create(folder, &cpu(), IndexModel::similarity(similarity()), options, source).unwrap()
    }
}

pub fn open(folder: &Path) -> ItemIndex {
    ItemIndex::open(folder, &cpu(), OpenOptions::default()).unwrap()
}

/// The best `k` of each query.
pub fn hits(index: &Arc<Searcher>, algorithm: Algorithm, k: usize) -> Vec<Vec<Hit>> {
    index.search(algorithm, &queries(4), k, &[]).unwrap()
}
